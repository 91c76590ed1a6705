"""HTTP: the page, REST derived from the contract, metrics, images."""
