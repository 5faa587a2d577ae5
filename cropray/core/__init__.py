"""What everything else is made of: values and rules without disk, network or cluster."""
