package idempotencytest

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/idempotency"
)

// held is what the model has for a key.
type held struct {
	by     idempotency.Claim
	answer *idempotency.Answer
}

// testModel does random things to a few keys, in no time, and compares with a
// model what comes of them.
func testModel(t *testing.T, open Open) {
	stores := []idempotency.Store{open(t), open(t)}
	run := 0
	// Without its other methods: in a bubble, t may not be asked for its deadline.
	rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
		run++
		model := map[string]held{}
		var owners []idempotency.Claim
		store := func(rt *rapid.T) idempotency.Store { return rapid.SampledFrom(stores).Draw(rt, "store") }
		owner := func(rt *rapid.T) (idempotency.Claim, held) {
			if len(owners) == 0 {
				rt.Skip("nobody has claimed anything")
			}
			c := rapid.SampledFrom(owners).Draw(rt, "owner")
			return c, model[c.Key]
		}
		rt.Repeat(map[string]func(*rapid.T){
			"claim": func(rt *rapid.T) {
				c := NewClaim(fmt.Sprintf("%d-%d", run, rapid.IntRange(0, 2).Draw(rt, "key")), rapid.SampledFrom([]string{"one", "two"}).Draw(rt, "request"))
				if len(owners) > 0 && rapid.Bool().Draw(rt, "again") {
					c, _ = owner(rt)
				}
				owners = append(owners, c)
				h, taken := model[c.Key]
				want := idempotency.Outcome{State: idempotency.Claimed}
				switch {
				case taken && h.answer != nil:
					want = idempotency.Outcome{State: idempotency.Completed, Fingerprint: h.by.Fingerprint, Answer: *h.answer}
				case taken && h.by.Owner != c.Owner:
					want = idempotency.Outcome{State: idempotency.InProgress, Fingerprint: h.by.Fingerprint}
				default:
					model[c.Key] = held{by: c}
				}
				got, err := store(rt).Claim(t.Context(), c)
				if diff := cmp.Diff(want, got, sameAnswer); err != nil || diff != "" {
					rt.Fatalf("Claim: %v (-want +got):\n%s", err, diff)
				}
			},
			"renew": func(rt *rapid.T) {
				c, h := owner(rt)
				if h.answer != nil && h.by.Owner == c.Owner {
					return // either way
				}
				verdict(rt, "Renew", store(rt).Renew(t.Context(), c), h.by.Owner == c.Owner)
			},
			"complete": func(rt *rapid.T) {
				c, h := owner(rt)
				a := idempotency.Answer{Status: rapid.IntRange(200, 599).Draw(rt, "status"), Header: http.Header{"X-N": {rapid.StringN(0, 9, 20).Draw(rt, "value")}}, Body: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "body")}
				free := h.by.Owner == ""
				verdict(rt, "Complete", store(rt).Complete(t.Context(), c, a), free || h.by.Owner == c.Owner)
				if free || h.by.Owner == c.Owner {
					model[c.Key] = held{c, &a}
				}
			},
			"release": func(rt *rapid.T) {
				c, h := owner(rt)
				if err := store(rt).Release(t.Context(), c); err != nil {
					rt.Fatalf("Release: %v", err)
				}
				if h.by.Owner == c.Owner && h.answer == nil {
					delete(model, c.Key)
				}
			},
		})
	})
}

func verdict(rt *rapid.T, what string, err error, holds bool) {
	rt.Helper()
	if holds && err != nil || !holds && !errors.Is(err, idempotency.ErrLost) {
		rt.Fatalf("%s = %v, though the claim holds: %t", what, err, holds)
	}
}
