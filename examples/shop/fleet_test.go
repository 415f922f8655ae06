package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/keelsontest"
)

// The whole shop in a test: what one instance was told the other knows, and that
// one goes away is nobody's business.
func TestShop(t *testing.T) {
	t.Parallel()
	fleet := keelsontest.Start(t, keelsontest.Gateway(config.Gateway),
		keelsontest.Service("user-service", users.New, keelsontest.Instances(2)))
	for i := range 4 {
		resp, err := fleet.Client().Post(fleet.URL+"/api/users", "application/json", strings.NewReader(fmt.Sprintf(`{"name":"Ann","email":"ann%d@example.org"}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("create: %s", resp.Status)
		}
	}
	list := func() {
		t.Helper()
		resp, err := fleet.Client().Get(fleet.URL + "/api/users")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var all []users.User
		if err := json.NewDecoder(resp.Body).Decode(&all); err != nil || len(all) != 4 {
			t.Errorf("%d users: %v", len(all), err)
		}
	}
	list()
	fleet.Instances("user-service")[0].Kill()
	for range 4 {
		list()
	}
	resp, err := fleet.ClientWith("").Get(fleet.URL + "/api/users")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s %s", resp.Status, body)
	}
}
