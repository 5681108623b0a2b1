"""The reference: its values, stored or asked for, and how it follows the policy."""
