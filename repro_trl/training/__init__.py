"""What a training script does around its trainer: arguments, problems, the reward, progress, before and after."""
