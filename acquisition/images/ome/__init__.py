"""OME's own forms: OME-XML and what it says of planes, and OME-Zarr."""
