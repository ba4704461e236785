"""All that faces TRL: the hook into its rollouts, RePro's mixin, and one short file per algorithm."""
