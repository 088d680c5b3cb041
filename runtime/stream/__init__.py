"""Tasks with deadlines on a device: planners, and the pipeline that runs what they choose. Numpy only."""
