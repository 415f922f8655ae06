package console

// MaxPickers is how many pickers are kept at most.
const MaxPickers = maxPickers

// Pickers returns how many pickers are kept.
func Pickers(c *Console) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.choices)
}
