"""Speed and noise, measured side by side in one run; every module here is one command."""
