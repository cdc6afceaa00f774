"""A web page that classifies videos with a trained network and shows what it attends to."""
