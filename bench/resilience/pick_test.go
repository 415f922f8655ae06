package resilience

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/selector/p2c"
	"github.com/go-kratos/kratos/v2/selector/wrr"

	"github.com/keelson-go/keelson/balance"
)

// BenchmarkPick chooses one of n instances and reports a call of 1 ms to it, which
// is what a balanced call costs.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{3, 100, 10_000} {
		set := balance.NewSet(endpoints(n))
		for _, p := range []struct {
			name   string
			picker balance.Picker
		}{{"keelson-p2c", balance.P2C()}, {"keelson-round-robin", balance.RoundRobin()}, {"keelson-weighted", balance.WeightedRoundRobin()}} {
			b.Run(fmt.Sprint(n, "/", p.name), func(b *testing.B) {
				both(b, func() {
					e := p.picker.Pick(set)
					e.Begin()
					e.End(time.Millisecond, false)
				})
			})
		}
		for _, p := range []struct {
			name     string
			selector selector.Selector
		}{{"kratos-p2c", p2c.New()}, {"kratos-wrr", wrr.New()}} {
			nodes := make([]selector.Node, n)
			for i := range nodes {
				nodes[i] = selector.NewNode("http", fmt.Sprintf("127.1.%d.%d:9", i>>8, i&255), nil)
			}
			p.selector.Apply(nodes)
			b.Run(fmt.Sprint(n, "/", p.name), func(b *testing.B) {
				ctx := context.Background()
				both(b, func() {
					_, done, err := p.selector.Select(ctx)
					if err != nil {
						b.Error(err)
						return
					}
					done(ctx, selector.DoneInfo{})
				})
			})
		}
	}
}

func endpoints(n int) []*balance.Endpoint {
	eps := make([]*balance.Endpoint, n)
	for i := range eps {
		eps[i] = balance.NewEndpoint(fmt.Sprint("users-", i), fmt.Sprintf("http://127.1.%d.%d:9", i>>8, i&255))
	}
	return eps
}
