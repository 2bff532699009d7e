"""The probe runner: train on preference pairs and log every step. The only room that loads transformers."""
