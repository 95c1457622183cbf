"""Light heads on frozen features, by the contract of scikit-learn: `fit`, `decision_function`."""
