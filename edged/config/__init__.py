"""Settings: what there is to set (`model`), where it is read from (`load`), how it is shown (`render`)."""
