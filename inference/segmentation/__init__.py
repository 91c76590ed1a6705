"""inference.segmentation."""
