"""Many pictures: plan, stages, pipeline, report."""
