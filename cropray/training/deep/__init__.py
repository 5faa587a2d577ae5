"""What networks of any kind are trained with."""
