package registry_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/registry"
)

func TestCheckableAddress(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"127.0.0.1", "127.9.9.9", "10.0.0.7", "172.16.3.4", "192.168.1.1", "100.64.0.1", "8.8.8.8", "168.63.129.17",
		"::1", "fd12:3456::7", "2001:db8::1", "::ffff:10.0.0.7", "64:ff9b::8.8.8.8", "2002:0808:0808::1", "fd00:ec2::253",
	} {
		if !registry.CheckableAddress(netip.MustParseAddr(s)) {
			t.Errorf("%s may not be checked", s)
		}
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1",
		"100.100.100.200", "168.63.129.16", "192.0.0.192",
		"::", "fe80::1", "fe80::1%eth0", "febf::1", "ff02::1", "ff05::2", "fd00:ec2::254", "fd00:ec2::254%eth0", "fd20:ce::254",
		"::ffff:169.254.169.254", "::ffff:0.0.0.0", "::169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "64:ff9b::100.100.100.200",
	} {
		if registry.CheckableAddress(netip.MustParseAddr(s)) {
			t.Errorf("%s may be checked", s)
		}
	}
	if registry.CheckableAddress(netip.Addr{}) {
		t.Error("no address may be checked")
	}
}

func TestDialCheckable(t *testing.T) {
	t.Parallel()
	for address, allowed := range map[string]bool{
		"127.0.0.1:3001": true, "10.1.2.3:80": true, "[::1]:80": true, "8.8.8.8:443": true,
		"169.254.169.254:80": false, "[fe80::1]:80": false, "0.0.0.0:80": false, "224.0.0.1:80": false,
		"[::ffff:169.254.169.254]:80": false, "garbage": false,
	} {
		if err := registry.DialCheckable(t.Context(), "tcp", address, nil); (err == nil) != allowed {
			t.Errorf("%s: %v, allowed is %v", address, err, allowed)
		}
	}
}

// However an address is written, the network part of it is the same.
func FuzzCheckableAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		got := registry.CheckableAddress(ip)
		if got && (ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified()) {
			t.Errorf("%s may be checked", ip)
		}
		if ip.Is4() && registry.CheckableAddress(netip.AddrFrom16(ip.As16())) != got {
			t.Errorf("%s: %v, but not so when it is mapped", ip, got)
		}
	})
}

// Nothing is sent where no check may go, and it is told apart from a failure.
func TestProberForbidden(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"http://169.254.169.254:80", "http://[fe80::1%25lo]:3001", "http://0.0.0.0:3001", "http://[::]:3001",
		"http://255.255.255.255:80", "http://224.0.0.1:80", "http://[::ffff:169.254.169.254]:80", "http://100.100.100.200:80",
	} {
		for _, health := range []string{"", "/health"} {
			in := registry.Instance{Name: "users", ID: "a", Address: address, Health: health}
			if err := in.Normalize(); err != nil {
				t.Fatal(err)
			}
			if got := registry.NewProber().Probe(t.Context(), in); got != registry.ProbeForbidden {
				t.Errorf("%s%s: %v", address, health, got)
			}
		}
	}
}

// A probe is a plain GET that carries nothing of this process, and takes no
// detour through the environment's proxy.
func TestProberRequest(t *testing.T) {
	var proxied atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied.Store(true) }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	var got *http.Request
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	in := registry.Instance{Name: "users", ID: "a", Address: "http://" + l.Addr().String(), Health: "/health?deep=1"}
	if err := in.Normalize(); err != nil {
		t.Fatal(err)
	}
	p := registry.NewProber()
	for range 2 {
		if r := p.Probe(t.Context(), in); r != registry.ProbeOK {
			t.Fatal(r)
		}
	}
	if got.Method != http.MethodGet || got.URL.String() != "/health?deep=1" || got.ContentLength != 0 ||
		len(got.Cookies()) != 0 || got.Header.Get("Authorization") != "" || got.UserAgent() != "keelson-check" {
		t.Errorf("%s %s with %v", got.Method, got.URL, got.Header)
	}
	// A proxy would be used for an address that is not this machine's.
	in.Address, in.Health = "http://192.0.2.1:80", "http://192.0.2.1:80/health"
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if r := p.Probe(ctx, in); r == registry.ProbeOK || proxied.Load() {
		t.Errorf("it went through the proxy: %v", r)
	}
}
