package resilience

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/go-kratos/kratos/v2/middleware/circuitbreaker"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/selector/p2c"
	kratoshttp "github.com/go-kratos/kratos/v2/transport/http"
)

// kratosClient is Kratos' own client with its P2C and its breaker. It has no
// retries.
type kratosClient struct{ *kratoshttp.Client }

func dialKratos(tb testing.TB, addresses []string) http.RoundTripper {
	return kratosOver(tb, addresses, transport(tb))
}

func kratosOver(tb testing.TB, addresses []string, base http.RoundTripper) http.RoundTripper {
	selector.SetGlobalSelector(p2c.NewBuilder())
	c, err := kratoshttp.NewClient(context.Background(),
		kratoshttp.WithEndpoint("discovery:///users"), kratoshttp.WithDiscovery(listed(addresses)), kratoshttp.WithBlock(),
		kratoshttp.WithTransport(base), kratoshttp.WithTimeout(patience),
		kratoshttp.WithMiddleware(circuitbreaker.Client()),
		kratoshttp.WithResponseDecoder(func(_ context.Context, resp *http.Response, v any) error {
			b, err := io.ReadAll(resp.Body)
			*v.(*string) = string(b)
			return err
		}))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return kratosClient{c}
}

func (c kratosClient) RoundTrip(req *http.Request) (*http.Response, error) {
	var body string
	if err := c.Invoke(req.Context(), req.Method, req.URL.Path, nil, &body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// listed is a discovery of instances that never change.
type listed []string

func (l listed) GetService(context.Context, string) ([]*registry.ServiceInstance, error) {
	all := make([]*registry.ServiceInstance, len(l))
	for i, a := range l {
		all[i] = &registry.ServiceInstance{ID: strconv.Itoa(i), Name: "users", Endpoints: []string{a}}
	}
	return all, nil
}

func (l listed) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	all, err := l.GetService(ctx, service)
	w := &watcher{first: make(chan []*registry.ServiceInstance, 1), stopped: make(chan struct{})}
	w.first <- all
	return w, err
}

type watcher struct {
	first   chan []*registry.ServiceInstance
	stopped chan struct{}
}

func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	select {
	case all := <-w.first:
		return all, nil
	case <-w.stopped:
		return nil, context.Canceled // with anything else Kratos asks again for ever
	}
}

func (w *watcher) Stop() error {
	close(w.stopped)
	return nil
}
