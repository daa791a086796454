"""Launch: when and where. Plans, runs, locks, retries, resumes and finds things."""
