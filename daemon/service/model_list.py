"""The models that can score, and those that once did."""

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.inference.network.model_card import DEFAULT_MODEL, WEIGHTS_FOLDER, read_card
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ModelError


def known_models(catalog: CatalogReader) -> list[wire.Model]:
    """Those that ship, the default first, then those known only from their rows."""
    counts = {row["model_sha256"]: row["n"] for row in catalog.query(_COUNTS)}
    names = sorted(
        (path.stem for path in WEIGHTS_FOLDER.glob("*.json")), key=lambda name: (name != DEFAULT_MODEL, name)
    )
    models = []
    for name in names:
        try:
            card = read_card(name)
        except ModelError:
            continue  # the regressor's file is no card of a network
        n_results = counts.pop(card.sha256, 0)
        models.append(wire.Model(name=name, sha256=card.sha256, description=card.description, n_results=n_results))
    return [*models, *(wire.Model(sha256=sha256, n_results=n) for sha256, n in counts.items())]


_COUNTS = "SELECT model_sha256, count(*) AS n FROM results GROUP BY model_sha256 ORDER BY model_sha256"
