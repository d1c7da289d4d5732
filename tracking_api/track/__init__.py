"""One order for its customer: position, events and estimate of arrival."""
