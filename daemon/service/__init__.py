"""gRPC: the servicer, its authorization, status, control and pushed frames."""
