"""`cropray plan`: how long a job takes, here and on a cluster that is not at hand."""
