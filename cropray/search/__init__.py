"""The search: configurations × folds on Ray Tune, and the choice of the winner."""
