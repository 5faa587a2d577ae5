"""From a trained model and composites to maps."""
