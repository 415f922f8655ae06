package sqlidempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/idempotency/sqlidempotency"
)

// An order is placed and its key marked in one transaction.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", "file::memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // each connection would have a memory of its own
	keys, err := sqlidempotency.New(db, sqlidempotency.SQLite)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := keys.CreateTable(ctx); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id INTEGER PRIMARY KEY)"); err != nil {
		fmt.Println(err)
		return
	}
	place := func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders DEFAULT VALUES"); err != nil {
			return err
		}
		if err := keys.Done(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	}
	once, err := idempotency.Middleware(keys)
	if err != nil {
		fmt.Println(err)
		return
	}
	h := once(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := place(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	for range 3 {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		r.Header.Set(idempotency.Header, "8e03978e-40d5-43dd-bc93-6894a57f9324")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get(idempotency.ReplayedHeader) == "true")
	}
	var orders int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&orders)
	fmt.Println("orders:", orders, err)
	// Output:
	// 201 false
	// 201 true
	// 201 true
	// orders: 1 <nil>
}
