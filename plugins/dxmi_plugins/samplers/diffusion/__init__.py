"""The few-step diffusion policy: a teacher's network on a short schedule."""
