package registry

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/keelson-go/keelson/registry"
)

const prefix = "/services/"

func serveEtcd(dir string, noFsync bool) error {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = dir, noFsync
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	var free []url.URL
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		free = append(free, url.URL{Scheme: "http", Host: l.Addr().String()})
		l.Close()
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = free[:1], free[:1]
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = free[1:], free[1:]
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	fmt.Println(free[0].String())
	untilStdinEnds()
	return nil
}

type etcd struct {
	client *clientv3.Client
	mu     sync.Mutex
	leases map[int]clientv3.LeaseID
}

func dialEtcd(_ context.Context, s *server) (store, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.url}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	return &etcd{client: c, leases: map[int]clientv3.LeaseID{}}, nil
}

func (e *etcd) lease(i int) clientv3.LeaseID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leases[i]
}

func (e *etcd) register(ctx context.Context, i int) error {
	granted, err := e.client.Grant(ctx, int64(ttl.Seconds()))
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.leases[i] = granted.ID
	e.mu.Unlock()
	return e.put(ctx, i, 0, clientv3.WithLease(granted.ID))
}

func (e *etcd) put(ctx context.Context, i, n int, opts ...clientv3.OpOption) error {
	in := record(i, n)
	value, err := in.Encode()
	if err != nil {
		return err
	}
	_, err = e.client.Put(ctx, prefix+in.Key().String(), string(value), opts...)
	return err
}

func (e *etcd) renew(ctx context.Context, i int) error {
	_, err := e.client.KeepAliveOnce(ctx, e.lease(i))
	return err
}

func (e *etcd) change(ctx context.Context, i, n int) error {
	return e.put(ctx, i, n, clientv3.WithIgnoreLease())
}

// watch keeps what a service's client keeps: the decoded records.
func (e *etcd) watch(ctx context.Context, ready func(), seen func(int)) error {
	all, err := e.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	known := map[registry.Key]registry.Instance{}
	for _, kv := range all.Kvs {
		in, err := registry.Decode(kv.Value)
		if err != nil {
			return err
		}
		known[in.Key()] = in
	}
	if len(known) < instances {
		return fmt.Errorf("the snapshot has %d instances", len(known))
	}
	changes := e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(all.Header.Revision+1))
	ready()
	for batch := range changes {
		if err := batch.Err(); err != nil {
			return err
		}
		for _, event := range batch.Events {
			in, err := registry.Decode(event.Kv.Value)
			if err != nil {
				return err
			}
			known[in.Key()] = in
			n, err := strconv.Atoi(in.Metadata["n"])
			if err != nil {
				return err
			}
			seen(n)
		}
	}
	return ctx.Err()
}

func (e *etcd) close() { _ = e.client.Close() }
