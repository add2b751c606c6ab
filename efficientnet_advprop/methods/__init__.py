"""Training methods: how a batch becomes losses and gradients."""
