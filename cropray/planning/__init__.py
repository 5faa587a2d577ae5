"""What a job will take: pure arithmetic over counted work and measured unit costs."""
