"""The study's network: convolutions over time, then a U-Net."""
