"""Networks that give tissue classes in one pass, trained on the likelihood of the mixture."""
