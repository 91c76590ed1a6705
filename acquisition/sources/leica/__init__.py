"""LAS X Matrix Screener: steered over CAM, its exported tree watched for frames."""
