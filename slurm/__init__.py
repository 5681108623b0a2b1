"""The same study on a cluster: cells as array jobs that resume, requeue themselves and never meet."""
