package engine_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/keelson-go/keelson/engine"
)

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cfg   engine.Config
		field string
	}{
		"no scheme":            {engine.Config{URL: "localhost:4222"}, "URL"},
		"another scheme":       {engine.Config{URL: "http://localhost:4222"}, "URL"},
		"no URL":               {engine.Config{URL: "nats://a:1:2/%zz"}, "URL"},
		"the second is wrong":  {engine.Config{URL: "nats://a:4222,nats//b"}, "URL"},
		"credentials in it":    {engine.Config{URL: "nats://me:hush@localhost:4222"}, "URL"},
		"no password":          {engine.Config{Credentials: "hush"}, "Credentials"},
		"empty password":       {engine.Config{Credentials: "me:"}, "Credentials"},
		"no such file":         {engine.Config{Credentials: "/nonexistent/hush.creds"}, "Credentials"},
		"and no scheme":        {engine.Config{URL: "me:hush@localhost:4222"}, "URL"},
		"nor a host":           {engine.Config{URL: "nats://a:4222,me:hush@/"}, "URL"},
		"negative replicas":    {engine.Config{Replicas: -1}, "Replicas"},
		"too many replicas":    {engine.Config{Replicas: 6}, "Replicas"},
		"certificate, no key":  {engine.Config{CertFile: junk}, "CertFile"},
		"no such authority":    {engine.Config{CAFile: "/nonexistent"}, "CAFile"},
		"authority is junk":    {engine.Config{CAFile: junk}, "CAFile"},
		"certificate is junk":  {engine.Config{CertFile: junk, KeyFile: junk}, "CertFile"},
		"system: no password":  {engine.Config{SystemCredentials: "hush"}, "SystemCredentials"},
		"system: no such file": {engine.Config{SystemCredentials: "/nonexistent/x.creds"}, "SystemCredentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := engine.Connect(t.Context(), test.cfg)
			got, ok := errors.AsType[*engine.ConfigError](err)
			if !ok || got.Field != test.field {
				t.Fatalf("got %v, want a ConfigError of %s", err, test.field)
			}
			if strings.Contains(err.Error(), "hush") && test.field != "Credentials" || strings.Contains(err.Error(), "hush@") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("nats://me:hush@localhost:4222", "me:secret")
	f.Add("tls://a:4222, nats://b", "x.creds")
	f.Add("nats://[::1", ":")
	f.Fuzz(func(t *testing.T, url, credentials string) {
		_, err := engine.ConnOptions(engine.Config{URL: url, Credentials: credentials})
		if _, ok := errors.AsType[*engine.ConfigError](err); err != nil && !ok {
			t.Errorf("%v is no ConfigError", err)
		}
	})
}

func TestParseDurability(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]engine.Durability{"": engine.Fast, "fast": engine.Fast, "always": engine.Always} {
		if got, err := engine.ParseDurability(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := engine.ParseDurability("Always"); err == nil {
		t.Error("an unknown word was accepted")
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + l.Addr().String()
	l.Close()
	_, err = engine.Connect(t.Context(), engine.Config{URL: nobody})
	if !errors.Is(err, engine.ErrUnreachable) || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), nobody) {
		t.Errorf("got %v", err)
	}
}

// mute accepts connections and never says a word.
func mute(t *testing.T) (url string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			called <- struct{}{}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "nats://" + l.Addr().String(), called
}

func TestConnectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url, accepted := mute(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-accepted; cancel() }()
	began := time.Now()
	_, err := engine.Connect(ctx, engine.Config{URL: url})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 1900*time.Millisecond {
		t.Errorf("took %v: that was the dial timeout, not the context", took)
	}
}

func TestMuteServerIsUnreachable(t *testing.T) {
	t.Parallel()
	url, _ := mute(t)
	if _, err := engine.Connect(t.Context(), engine.Config{URL: url}); !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsRefused(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *server.Options) { o.Username, o.Password = "me", "right-secret" })
	for _, c := range []string{"", "me:wrong-secret"} {
		_, err := engine.Connect(t.Context(), engine.Config{URL: s.ClientURL(), Credentials: c, Wait: true})
		if !errors.Is(err, engine.ErrCredentials) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", c, err)
		}
	}
	connect(t, engine.Config{URL: s.ClientURL(), Credentials: "me:right-secret"})
}

// Credentials that don't allow JetStream's subjects get no answer at all; the
// error tells nevertheless.
func TestPermissionsTooNarrow(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "me", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.>"}}}}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := engine.Connect(ctx, engine.Config{URL: s.ClientURL(), Credentials: "me:x"}); !errors.Is(err, engine.ErrCredentials) {
		t.Errorf("got %v", err)
	}
}

func TestNoJetStream(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *server.Options) { o.JetStream = false })
	if _, err := engine.Connect(t.Context(), engine.Config{URL: s.ClientURL()}); !errors.Is(err, engine.ErrNoJetStream) {
		t.Errorf("got %v", err)
	}
}

// With Wait, Connect outlasts a server that comes later.
func TestWait(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	cfg := engine.Config{URL: "nats://" + addr.String(), Wait: true}

	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := engine.Connect(short, cfg); !errors.Is(err, engine.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	type result struct {
		e   *engine.Engine
		err error
	}
	got := make(chan result, 1)
	go func() {
		e, err := engine.Connect(t.Context(), cfg)
		got <- result{e, err}
	}()
	bare(t, func(o *server.Options) { o.Port = addr.Port })
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.e.Close()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, caFile := selfSigned(t)
	s := bare(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		o.TLSTimeout = 10
	})
	plain := bare(t, nil)
	port := s.Addr().(*net.TCPAddr).AddrPort().String()

	e := connect(t, engine.Config{URL: "tls://" + port, CAFile: caFile})
	if _, err := e.Conn().TLSConnectionState(); err != nil {
		t.Error(err)
	}
	connect(t, engine.Config{URL: "nats://" + port, CAFile: caFile})
	for name, cfg := range map[string]engine.Config{
		"unknown authority":       {URL: "tls://" + port},
		"unknown, asked by it":    {URL: "nats://" + port},
		"server without TLS":      {URL: "tls://" + plain.Addr().String()},
		"no TLS with a CAFile":    {URL: plain.ClientURL(), CAFile: caFile},
		"another name, right key": {URL: "tls://localhost:" + strings.Split(port, ":")[1], CAFile: caFile},
	} {
		if _, err := engine.Connect(t.Context(), cfg); !errors.Is(err, engine.ErrTLS) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// selfSigned is a certificate for 127.0.0.1 and the file of its authority.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// A server that is away, and one that refuses the credentials for a while, as
// when a password is rotated, are both waited out.
func TestReconnectsForEver(t *testing.T) {
	t.Parallel()
	with := func(password string, port int) *server.Server {
		return bare(t, func(o *server.Options) { o.Username, o.Password, o.Port = "me", password, port })
	}
	first := with("right", server.RANDOM_PORT)
	port := first.Addr().(*net.TCPAddr).Port
	e := connect(t, engine.Config{URL: first.ClientURL(), Credentials: "me:right"})
	var lost, back atomic.Int32
	e.OnState(func(connected bool, err error) {
		if connected {
			back.Add(1)
		} else {
			lost.Add(1)
		}
		if connected != (err == nil) && connected {
			t.Errorf("connected with error %v", err)
		}
	})
	if err := e.Check(t.Context()); err != nil {
		t.Error(err)
	}
	first.Shutdown()
	first.WaitForShutdown()
	eventually(t, "loss told", func() bool { return lost.Load() == 1 })
	if err := e.Check(t.Context()); !errors.Is(err, engine.ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
	if err := e.Conn().Publish("x", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("a publish while away gave %v, want it refused at once", err)
	}
	wrong := with("wrong", port)
	refusals := e.Conn().Stats().Reconnects
	eventually(t, "three refusals", func() bool { return e.Conn().Stats().Reconnects >= refusals+3 })
	wrong.Shutdown()
	wrong.WaitForShutdown()
	with("right", port)
	eventually(t, "return told", func() bool { return back.Load() == 1 })
	eventually(t, "healthy", func() bool { return e.Check(t.Context()) == nil })
}

// A loss too short to be seen is still told: the client's id has changed.
func TestShortLossIsTold(t *testing.T) {
	t.Parallel()
	e := connect(t, engine.Config{URL: bare(t, nil).ClientURL()})
	states := make(chan bool, 100)
	e.OnState(func(connected bool, _ error) { states <- connected })
	for range 5 {
		if err := e.Conn().ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{false, true} {
			select {
			case got := <-states:
				if got != want {
					t.Fatalf("told %v, want %v", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("never told %v", want)
			}
		}
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	e := connect(t, engine.Config{URL: s.ClientURL()})
	watch := connect(t, engine.Config{URL: s.ClientURL()})
	sub, err := watch.Conn().SubscribeSync("bye")
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := e.Conn().Publish("bye", nil); err != nil {
		t.Fatal(err)
	}
	e.OnState(func(bool, error) { t.Error("a wanted end was told as a loss") })
	e.Close()
	e.Close()
	if _, err := sub.NextMsg(patience); err != nil {
		t.Error("what was published before Close was not sent:", err)
	}
	if err := e.Check(t.Context()); !errors.Is(err, engine.ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
	// A closed engine must not hold up the end of a process whose server went.
	s.Shutdown()
	began := time.Now()
	watch.Close()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("closing without a server took %v", took)
	}
}

func TestSystemConnection(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *server.Options) {
		system := server.NewAccount("SYS")
		o.Accounts, o.SystemAccount = []*server.Account{system}, "SYS"
		o.Users = []*server.User{{Username: "sys", Password: "s", Account: system}, {Username: "app", Password: "a"}}
	})
	e := connect(t, engine.Config{URL: s.ClientURL(), Credentials: "app:a", SystemCredentials: "sys:s"})
	if _, err := e.System().Request("$SYS.REQ.SERVER.PING", nil, patience); err != nil {
		t.Error(err)
	}
	if e := connect(t, engine.Config{URL: s.ClientURL(), Credentials: "app:a"}); e.System() != nil {
		t.Error("a system connection without system credentials")
	}
	if _, err := engine.Connect(t.Context(), engine.Config{URL: s.ClientURL(), Credentials: "app:a", SystemCredentials: "sys:x"}); !errors.Is(err, engine.ErrCredentials) || !strings.Contains(err.Error(), "system") {
		t.Errorf("got %v", err)
	}
}
