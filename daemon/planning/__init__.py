"""What a plate will take before it is imaged: geometry, time, a drawing, exchange with useq."""
