package natsregistry

import "time"

// Audit sets how often watches make sure of their bucket.
func (d *Driver) Audit(every time.Duration) { d.audit = every }
