"""Scenarios, and the plan: which model runs with which scenario."""
