package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/engine"
)

func config(t *testing.T, e *engine.Engine, bucket string) jetstream.StreamConfig {
	t.Helper()
	stream, err := e.JetStream().Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	e := connect(t, engine.Config{URL: bare(t, nil).ClientURL()})
	for bucket, want := range map[string]jetstream.KeyValueConfig{
		engine.InstancesBucket: {MaxValueSize: 64 << 10, LimitMarkerTTL: time.Hour},
		engine.LeasesBucket:    {MaxValueSize: 4 << 10, LimitMarkerTTL: time.Minute},
	} {
		c := config(t, e, bucket)
		if c.MaxMsgsPerSubject != 1 || c.MaxMsgSize != want.MaxValueSize || c.MaxBytes <= 0 || !c.AllowMsgTTL ||
			c.SubjectDeleteMarkerTTL != want.LimitMarkerTTL || c.Storage != jetstream.FileStorage || c.Replicas != 1 || c.MaxAge != 0 {
			t.Errorf("%s: %+v", bucket, c)
		}
		kv, err := e.JetStream().KeyValue(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), "big", make([]byte, want.MaxValueSize+1)); err == nil {
			t.Errorf("%s took a value over its limit", bucket)
		}
	}
	if e := connect(t, engine.Config{URL: bare(t, nil).ClientURL(), Memory: true}); config(t, e, engine.LeasesBucket).Storage != jetstream.MemoryStorage {
		t.Error("Memory was asked for and not given")
	}
}

func TestProvisionAtOnce(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			e, err := engine.Connect(t.Context(), engine.Config{URL: s.ClientURL()})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			for range 5 {
				if err := e.Provision(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Ours is put right, the operator's is left, and what is right isn't touched.
func TestProvisionCorrectsDrift(t *testing.T) {
	t.Parallel()
	e := connect(t, engine.Config{URL: bare(t, nil).ClientURL()})
	right := config(t, e, engine.LeasesBucket)
	drifted := right
	drifted.MaxMsgSize, drifted.MaxBytes, drifted.MaxMsgsPerSubject = 99, 1<<20, 7
	drifted.SubjectDeleteMarkerTTL, drifted.Description = 3*time.Second, "mine"
	drifted.MaxAge = time.Hour
	drifted.Metadata = map[string]string{"team": "blue"}
	kv, err := e.JetStream().KeyValue(t.Context(), engine.LeasesBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.JetStream().UpdateStream(t.Context(), drifted); err != nil {
		t.Fatal(err)
	}
	updates, err := e.Conn().SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := config(t, e, engine.LeasesBucket)
	if got.Metadata["team"] != "blue" {
		t.Error("the operator's metadata is gone")
	}
	got.Metadata, right.Metadata = nil, nil
	if diff := cmp.Diff(right, got); diff != "" {
		t.Error(diff)
	}
	if entry, err := kv.Get(t.Context(), "k"); err != nil || string(entry.Value()) != "v" {
		t.Errorf("the key is gone: %v", err)
	}
	if _, err := updates.NextMsg(patience); err != nil {
		t.Fatal("no update was seen:", err)
	}
	// On a busy machine an update may be asked for again, its answer being late. But
	// what is right stays as it is.
	for range 3 {
		flush := func() {
			if err := e.Conn().Flush(); err != nil {
				t.Fatal(err)
			}
		}
		flush()
		before, _, _ := updates.Pending()
		if err := e.Provision(t.Context()); err != nil {
			t.Fatal(err)
		}
		flush()
		if after, _, _ := updates.Pending(); after == before {
			return
		}
	}
	t.Error("a right bucket is updated each time")
}

// Credentials that may look but not change are enough where all is right.
func TestProvisionWithNarrowCredentials(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *server.Options) {
		deny := &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>"}}
		o.Users = []*server.User{{Username: "admin", Password: "x"}, {Username: "narrow", Password: "x", Permissions: &server.Permissions{Publish: deny}}}
	})
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := engine.Connect(short, engine.Config{URL: s.ClientURL(), Credentials: "narrow:x"}); !errors.Is(err, engine.ErrCredentials) {
		t.Errorf("got %v while the buckets are missing", err)
	}
	connect(t, engine.Config{URL: s.ClientURL(), Credentials: "admin:x"})
	connect(t, engine.Config{URL: s.ClientURL(), Credentials: "narrow:x"})
}

// A lease ends by itself and its watcher is told.
func TestKeyExpiresAndWatcherIsTold(t *testing.T) {
	t.Parallel()
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprint("memory=", memory), func(t *testing.T) {
			t.Parallel()
			e := connect(t, engine.Config{URL: bare(t, nil).ClientURL(), Memory: memory})
			kv, err := e.JetStream().KeyValue(t.Context(), engine.LeasesBucket)
			if err != nil {
				t.Fatal(err)
			}
			w, err := kv.Watch(t.Context(), "a.1", jetstream.UpdatesOnly())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			if _, err := e.JetStream().Publish(t.Context(), "$KV."+engine.LeasesBucket+".a.1", []byte("x"), jetstream.WithMsgTTL(time.Second)); err != nil {
				t.Fatal(err)
			}
			for _, want := range []jetstream.KeyValueOp{jetstream.KeyValuePut, jetstream.KeyValuePurge} {
				select {
				case entry := <-w.Updates():
					if entry == nil || entry.Operation() != want {
						t.Fatalf("got %v, want %v", entry, want)
					}
				case <-time.After(patience):
					t.Fatalf("the watcher never saw %v", want)
				}
			}
			if _, err := kv.Get(t.Context(), "a.1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
				t.Errorf("got %v for an expired key", err)
			}
		})
	}
}

// A removal marker with a TTL goes away, so that a bucket of short-lived
// instances doesn't grow for ever.
func TestRemovalMarkerGoes(t *testing.T) {
	t.Parallel()
	e := connect(t, engine.Config{URL: bare(t, nil).ClientURL()})
	kv, err := e.JetStream().KeyValue(t.Context(), engine.InstancesBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "a.1", "x"); err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), "a.1", jetstream.PurgeTTL(time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "empty bucket", func() bool {
		stream, err := e.JetStream().Stream(t.Context(), "KV_"+engine.InstancesBucket)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
}

func TestReplicasWithoutCluster(t *testing.T) {
	t.Parallel()
	_, err := engine.Connect(t.Context(), engine.Config{URL: bare(t, nil).ClientURL(), Replicas: 3})
	if err == nil || !strings.Contains(err.Error(), "Replicas") {
		t.Errorf("got %v, want what to do about Replicas", err)
	}
}

// In a cluster there are three copies, and an engine outlives one server.
func TestCluster(t *testing.T) {
	t.Parallel()
	var ports []int
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		defer l.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var servers []*server.Server
	var urls []string
	for i, port := range ports {
		s := bare(t, func(o *server.Options) {
			o.ServerName = fmt.Sprint("n", i)
			o.Cluster = server.ClusterOpts{Name: "C", Host: "127.0.0.1", Port: port}
			o.Routes = routes
		})
		servers, urls = append(servers, s), append(urls, s.ClientURL())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	e, err := engine.Connect(ctx, engine.Config{URL: strings.Join(urls, ","), Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if n := config(t, e, engine.InstancesBucket).Replicas; e.Replicas() != 3 || n != 3 {
		t.Errorf("%d replicas wanted, %d made, want 3", e.Replicas(), n)
	}
	for _, s := range servers {
		if s.ID() == e.Conn().ConnectedServerId() {
			s.Shutdown()
			break
		}
	}
	kv, err := e.JetStream().KeyValue(t.Context(), engine.InstancesBucket)
	eventually(t, "a write on the two servers left", func() bool {
		if err != nil {
			kv, err = e.JetStream().KeyValue(t.Context(), engine.InstancesBucket)
			return false
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := kv.PutString(short, "a.1", "x")
		return err == nil
	})
}
