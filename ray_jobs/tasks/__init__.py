"""Training tasks, one file a model; see :class:`ray_jobs.training.task.Task`."""
