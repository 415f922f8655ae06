package postgrestest_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keelson-go/keelson/internal/postgrestest"
)

func ExampleStart() {
	ctx := context.Background()
	server, err := postgrestest.Start(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Stop()
	conn, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	var answer int
	err = conn.QueryRow(ctx, "SELECT 6 * 7").Scan(&answer)
	fmt.Println(answer, err)
	// Output: 42 <nil>
}
