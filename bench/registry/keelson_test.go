package registry

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/registry"
)

// serveKeelson runs what `keelson up` runs without services: engine, registry
// with its checks, admin API and gateway.
func serveKeelson(dir string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := platform.Listen(ctx, platform.Config{Engine: embedded.Config{Dir: dir, Listen: "127.0.0.1:0"}})
	if err != nil {
		return err
	}
	p.Add("benchmark", func(ctx context.Context, ready func()) error {
		url, credentials := p.Engine()
		fmt.Println(url, credentials)
		ready()
		<-ctx.Done()
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		untilStdinEnds()
		cancel()
	})
	defer wg.Wait()
	return p.Run(ctx)
}

type keelson struct {
	engine    *engine.Engine
	driver    registry.Driver
	mu        sync.Mutex
	revisions map[int]uint64
}

func dialKeelson(ctx context.Context, s *server) (store, error) {
	e, err := engine.Connect(ctx, engine.Config{URL: s.url, Credentials: s.credentials})
	if err != nil {
		return nil, err
	}
	d, err := e.RegistryDriver(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &keelson{engine: e, driver: d, revisions: map[int]uint64{}}, nil
}

func (k *keelson) register(ctx context.Context, i int) error {
	revision, err := k.driver.Register(ctx, record(i, 0), ttl)
	k.keep(i, revision)
	return err
}

func (k *keelson) renew(ctx context.Context, i int) error {
	return k.driver.Renew(ctx, record(i, 0).Key(), ttl)
}

func (k *keelson) change(ctx context.Context, i, n int) error {
	k.mu.Lock()
	revision := k.revisions[i]
	k.mu.Unlock()
	revision, err := k.driver.Update(ctx, record(i, n), revision)
	k.keep(i, revision)
	return err
}

func (k *keelson) keep(i int, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revisions[i] = revision
}

func (k *keelson) watch(ctx context.Context, ready func(), seen func(int)) error {
	r := registry.Open(ctx, k.driver)
	defer r.Close()
	for e := range r.Watch(ctx) {
		if e.Type == registry.Snapshot {
			if len(e.Instances) < instances {
				return fmt.Errorf("the snapshot has %d instances", len(e.Instances))
			}
			ready()
			continue
		}
		n, err := strconv.Atoi(e.Instance.Metadata["n"])
		if err != nil {
			return err
		}
		seen(n)
	}
	return ctx.Err()
}

func (k *keelson) close() { k.engine.Close() }
