"""PPO with a critic, which TRL has not: a job folder for verl on a Ray cluster.

Tunesmith writes the folder and checks it; it never runs it. `settings` says a run in verl's own
words and holds them against verl's own config, `job` writes the folder, `scoring` is what runs on
the cluster to reward answers.
"""
