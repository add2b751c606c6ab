"""From stored records to batches: find, order, decode, crop, augment, batch."""
