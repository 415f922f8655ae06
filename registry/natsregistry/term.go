package natsregistry

import (
	"errors"
	"time"
)

// Times of the leadership. A leader that was killed is replaced when its lease
// expires, which is leaderTTL after it was renewed; one whose end the system
// account tells, after leaderNotice.
const (
	leaderTTL     = 3 * time.Second        // of the key; whole seconds
	leaderRenewal = leaderTTL / 4          // how often the leader renews
	leaderSafe    = 2 * time.Second        // how long it may lead after it sent a renewal
	leaderPause   = 100 * time.Millisecond // before a failed renewal is tried again

	// leaderLag is what a follower gives the store to tell the expiry, before
	// it relies on its own clock.
	leaderLag = 250 * time.Millisecond
	// leaderNotice is what the other end of a connection that has ended gets to
	// notice it too, for it may be alive.
	leaderNotice = 50 * time.Millisecond
	// leaderSilence is how long a watch may leave unsaid what must have happened.
	leaderSilence = time.Second
)

// claim is the value of the leader's key.
type claim struct {
	holder
	Campaign string `json:"campaign"` // whose claim it is
}

// term is what a campaign knows of the leadership during one watch of the key.
// It does no input or output and has no clock. Only the store's confirmation of
// a write ever makes it lead; whatever else it is told decides merely when to
// write, and each write is conditional on the revision.
type term struct {
	campaign string

	revision uint64    // of the key, as far as it is known
	synced   bool      // what was there at the start has been told
	stale    bool      // the revision is known not to be the last one
	limit    time.Time // until when the watch has to go on, while !synced or stale

	owner claim     // zero while the key is vacant
	seen  time.Time // when the owner's last write was seen
	gone  time.Time // when its connection was seen to have ended, if it was

	leading bool
	until   time.Time // it leads no longer than that
	next    time.Time // when to write next, while the claim is ours

	writing  bool // a write is under way
	sent     time.Time
	expected uint64 // the revision it is conditional on
	unsure   bool   // a write may or may not have been made
}

func newTerm(campaign string, now time.Time) *term {
	return &term{campaign: campaign, limit: now.Add(leaderTTL)}
}

func (t *term) vacant() bool { return t.owner == claim{} }
func (t *term) ours() bool   { return t.owner.Campaign == t.campaign }

// told takes in what the watch tells about the key: its owner, which is the zero
// claim when it was removed or has expired.
func (t *term) told(now time.Time, revision uint64, owner claim) {
	if revision <= t.revision {
		return // what was written here since has overtaken it
	}
	t.revision, t.owner, t.seen, t.next = revision, owner, now, now
	t.stale, t.unsure, t.gone = false, false, time.Time{}
	if !t.ours() {
		t.leading = false
	}
}

// ended takes in that the other end has closed the owner's connection.
func (t *term) ended(now time.Time) {
	if t.gone.IsZero() {
		t.gone = now
	}
}

// writes takes in that a claim is being sent.
func (t *term) writes(now time.Time) {
	t.writing, t.sent, t.expected = true, now, t.revision
}

// wrote takes in that the claim has been written. The store lets nobody else in
// before leaderTTL has passed since it was sent.
func (t *term) wrote(now time.Time, revision uint64, own claim) {
	t.writing = false
	if revision < t.revision {
		return // others have come after it
	}
	t.revision, t.owner, t.seen, t.next = revision, own, now, t.sent.Add(leaderRenewal)
	t.stale, t.unsure, t.gone = false, false, time.Time{}
	t.until = t.sent.Add(leaderSafe)
	t.leading = now.Before(t.until)
}

// refused takes in that the key was not at the expected revision. If that may be
// because of a write of ours, the watch will tell.
func (t *term) refused(now time.Time) {
	t.writing = false
	if t.expected != t.revision {
		return // it has told already
	}
	if !t.unsure {
		t.leading = false
	}
	t.stale, t.limit = true, now.Add(leaderSilence)
}

// failed takes in that it is unknown whether the claim was written.
func (t *term) failed(now time.Time) {
	t.writing, t.next = false, now.Add(leaderPause)
	t.unsure = t.expected == t.revision
}

// leads reports whether this campaign has the leadership.
func (t *term) leads(now time.Time) bool {
	t.leading = t.leading && now.Before(t.until)
	return t.leading
}

// errSilent says that a watch does not tell what must have happened.
var errSilent = errors.New("the watch of the leadership tells nothing")

// due says when to write a claim, or to look at the term again at the latest. It
// fails when only another watch can help.
func (t *term) due(now time.Time) (write bool, at time.Time, err error) {
	switch {
	case t.writing:
		at = now.Add(leaderTTL) // an answer comes first
	case !t.synced || t.stale:
		if !now.Before(t.limit) {
			return false, at, errSilent
		}
		at = t.limit
	case t.vacant():
		at, write = now, true
	case t.ours():
		at, write = t.next, true
	default:
		// By then nobody leads by what was seen, whatever the store says.
		at, write = t.seen.Add(leaderTTL+leaderLag), true
		if notice := t.gone.Add(leaderNotice); !t.gone.IsZero() && notice.Before(at) {
			at = notice
		}
	}
	if t.leading && t.until.Before(at) {
		at, write = t.until, false
	}
	return write && !now.Before(at), at, nil
}
