"""What a file says of its images: voxels, axes, units, channels, calibration; nothing is said that it does not say."""
