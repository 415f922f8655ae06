package users_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

// With sslmode=verify-full the server's certificate must be of the authority and for
// the host in the address. Else nothing is sent to it, and it is not waited for.
func TestPostgresTLS(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	ours, ourFile := certificate(t, "127.0.0.1")
	theirs, theirFile := certificate(t, "127.0.0.2")
	for _, tt := range []struct {
		name      string
		server    tls.Certificate
		authority string
		want      string // "" for a connection
	}{
		{"as it should be", ours, ourFile, ""},
		{"another authority", ours, theirFile, "certificate signed by unknown authority"},
		{"another host", theirs, theirFile, "certificate is valid for 127.0.0.2, not 127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			through := startTLS(t, address, tt.server)
			log := new(logged)
			s, err := users.OpenLogging(t.Context(), through+"?sslmode=verify-full&sslrootcert="+url.QueryEscape(tt.authority), slog.New(slog.NewTextHandler(log, nil)))
			if err == nil {
				create(t, s, "Ann", "ann@example.org")
				err = s.Close()
			}
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Open = %v, want %q", err, tt.want)
			}
			if log.String() != "" {
				t.Errorf("it was waited for:\n%s", log)
			}
		})
	}
}

// certificate makes a certificate of its own authority for a host, and the file
// that makes one trust it.
func certificate(t *testing.T, host string) (_ tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// startTLS returns an address to use the database by, with TLS alone.
func startTLS(t *testing.T, address string, certificate tls.Certificate) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, server := new(proxy), filepath.Join(u.Query().Get("host"), socket)
	p.serve(t, listener, func(client net.Conn) {
		defer client.Close()
		// What PostgreSQL's protocol has before TLS: the SSLRequest message, and a yes.
		const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
		request := make([]byte, len(sslRequest))
		if _, err := io.ReadFull(client, request); err != nil || string(request) != sslRequest {
			t.Errorf("not a request for TLS: %q, %v", request, err)
			return
		}
		if _, err := client.Write([]byte("S")); err != nil {
			return
		}
		secure := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{certificate}})
		if err := secure.HandshakeContext(t.Context()); err == nil {
			p.join(t, secure, server)
		}
	})
	u.Host, u.RawQuery = listener.Addr().String(), ""
	return u.String()
}
