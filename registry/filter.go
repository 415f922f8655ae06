package registry

import "slices"

// Filter narrows [Registry.Discover]. Several filters must all hold.
type Filter struct {
	match  func(*Instance) bool
	status bool // replaces the default of serving instances only
}

// Tags matches instances that have every one of tags.
func Tags(tags ...string) Filter {
	return Filter{match: func(i *Instance) bool {
		for _, t := range tags {
			if !slices.Contains(i.Tags, t) {
				return false
			}
		}
		return true
	}}
}

// Version matches instances of exactly this version.
func Version(v string) Filter {
	return Filter{match: func(i *Instance) bool { return i.Version == v }}
}

// Zone matches instances of this zone.
func Zone(z string) Filter {
	return Filter{match: func(i *Instance) bool { return i.Zone == z }}
}

// WithStatus matches instances in one of these states, where otherwise only
// serving ones are found. Without arguments it matches every state.
func WithStatus(states ...Status) Filter {
	return Filter{status: true, match: func(i *Instance) bool {
		return len(states) == 0 || slices.Contains(states, i.Status)
	}}
}

func matches(i *Instance, filters []Filter) bool {
	serving := true
	for _, f := range filters {
		if f.status {
			serving = false
		}
		if !f.match(i) {
			return false
		}
	}
	return !serving || i.Status.Serving()
}
