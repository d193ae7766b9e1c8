// JDBC: the examples of docs/drivers.md. t/drivers.pl runs this file and
// looks at the table.
import java.io.IOException;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.Map;
import org.postgresql.PGConnection;

public class Jdbc {
    static final OffsetDateTime noon = OffsetDateTime.parse("2026-01-01T12:00:00Z");
    static final String upsert = "SELECT batchdedup.upsert(ROW(?, ?, ?, ?, ?::jsonb)::device_state)";
    static final String byName = "SELECT batchdedup.upsert('device_state', ?::jsonb)";

    static void examples(Connection connection) throws SQLException, IOException {
        // One row; execute(), since a SELECT returns a result
        try (PreparedStatement s = connection.prepareStatement(upsert)) {
            s.setString(1, "one");
            s.setString(2, "ok");
            s.setBigDecimal(3, new BigDecimal("11.8"));
            s.setObject(4, noon);
            s.setString(5, null);
            s.execute();
        }

        // Many rows in one call: columns by name, an array for each
        try (PreparedStatement s = connection.prepareStatement(
                "SELECT count(batchdedup.upsert_record('device_state', s))"
                + " FROM unnest(?, ?, ?) AS s(device, status, volts)")) {
            s.setArray(1, connection.createArrayOf("text", new String[] {"many-1", "many-2"}));
            s.setArray(2, connection.createArrayOf("text", new String[] {"ok", "low"}));
            s.setArray(3, connection.createArrayOf("numeric",
                    new BigDecimal[] {new BigDecimal("12.5"), null}));
            s.execute();
        }

        // ... or JSON
        try (PreparedStatement s = connection.prepareStatement(byName)) {
            s.setString(1, "[{\"device\": \"many-3\", \"status\": \"ok\", \"volts\": 12.5},"
                    + " {\"device\": \"many-4\", \"status\": \"low\"}]");
            s.execute();
        }

        // ... or whole rows, a parameter for each value
        try (PreparedStatement s = connection.prepareStatement(
                "SELECT batchdedup.upsert(ARRAY[ROW(?, ?, ?, ?, NULL),"
                + " ROW(?, ?, ?, ?, NULL)]::device_state[])")) {
            s.setString(1, "many-5");
            s.setString(2, "ok");
            s.setBigDecimal(3, new BigDecimal("12.5"));
            s.setObject(4, noon);
            s.setString(5, "many-6");
            s.setString(6, "low");
            s.setNull(7, Types.NUMERIC);
            s.setObject(8, noon);
            s.execute();
        }

        // null is NULL; what is absent from JSON is not given
        try (PreparedStatement s = connection.prepareStatement(byName)) {
            s.setString(1, "{\"device\": \"null\", \"status\": \"ok\", \"volts\": 9.5}");
            s.execute();
            s.setString(1, "{\"device\": \"null\", \"status\": null}");
            s.execute();
        }

        // A jsonb column: text, cast in the statement
        try (PreparedStatement s = connection.prepareStatement(upsert)) {
            s.setString(1, "json");
            s.setString(2, "ok");
            s.setNull(3, Types.NUMERIC);
            s.setObject(4, noon);
            s.setString(5, "{\"rpm\": 1450, \"parts\": [\"a\", \"b\"]}");
            s.execute();
        }

        // Batches: executeBatch() sends them at once; in one transaction here
        connection.setAutoCommit(false);
        try (PreparedStatement s = connection.prepareStatement(upsert)) {
            for (int i = 0; i < 100; i++) {
                s.setString(1, "batch-" + i % 10);
                s.setString(2, "ok");
                s.setBigDecimal(3, new BigDecimal(i));
                s.setObject(4, noon);
                s.setString(5, null);
                s.addBatch();
            }
            s.executeBatch();
        }
        connection.commit();
        connection.setAutoCommit(true);

        // Through the view: INSERT, here with reWriteBatchedInserts=true in the URL ...
        try (PreparedStatement s = connection.prepareStatement(
                "INSERT INTO device_state_buffered (device, status, volts, seen_at) VALUES (?, ?, ?, ?)")) {
            s.setString(1, "view-1");
            s.setString(2, "ok");
            s.setBigDecimal(3, new BigDecimal("12.5"));
            s.setObject(4, noon);
            s.addBatch();
            s.setString(1, "view-2");
            s.setString(2, "low");
            s.setBigDecimal(3, null);
            s.addBatch();
            s.executeBatch();
        }

        // ... and COPY
        String lines = "copy-1,ok,12.5,2026-01-01 12:00+00\n"
                + "copy-2,low,,2026-01-01 12:00+00\n";
        connection.unwrap(PGConnection.class).getCopyAPI().copyIn(
                "COPY device_state_buffered (device, status, volts, seen_at) FROM STDIN (FORMAT csv)",
                new StringReader(lines));

        // Reading what may not be in the table yet
        try (PreparedStatement s = connection.prepareStatement(
                "SELECT r ->> 'status', (r ->> 'volts')::numeric"
                + " FROM batchdedup.get('device_state', ?::jsonb) AS r")) {
            s.setString(1, "{\"device\": \"one\"}");
            try (ResultSet r = s.executeQuery()) {
                r.next();
                System.out.println("get: " + r.getString(1) + " " + r.getBigDecimal(2));
            }
        }
    }

    // Forms that do not work

    interface Call {
        void run() throws SQLException;
    }

    static void refused(String message, Call call) throws SQLException {
        try {
            call.run();
        } catch (SQLException e) {
            if (!e.getMessage().contains(message))
                throw e;
            System.out.println("refused: " + message);
            return;
        }
        throw new IllegalStateException("not refused: " + message);
    }

    static void whatDoesNotWork(Connection connection) throws SQLException {
        PreparedStatement json = connection.prepareStatement(
                "SELECT batchdedup.upsert('device_state', ?)");
        PreparedStatement row = connection.prepareStatement(
                "SELECT batchdedup.upsert(?)");

        refused("A result was returned when none was expected", () -> {
            try (PreparedStatement s = connection.prepareStatement(byName)) {
                s.setString(1, "{\"device\": \"x\"}");
                s.executeUpdate();
            }
        });
        // ... although the server has taken the row and committed
        try (PreparedStatement s = connection.prepareStatement(
                "SELECT batchdedup.delete('device_state', jsonb_build_object('device', r ->> 'device'))"
                + " FROM batchdedup.get('device_state', '{\"device\": \"x\"}') AS r WHERE r IS NOT NULL");
             ResultSet r = s.executeQuery()) {
            if (!r.next())
                throw new IllegalStateException("no row");
        }

        refused("function batchdedup.upsert(unknown, character varying) does not exist", () -> {
            json.setString(1, "{\"device\": \"x\"}");
            json.execute();
        });
        refused("No hstore extension installed", () -> {
            json.setObject(1, Map.of("device", "x"));
        });
        refused("Can't infer the SQL type to use for an instance of java.time.Instant", () -> {
            json.setObject(1, noon.toInstant());
        });
        refused("createStruct(String, Object[]) is not yet implemented", () -> {
            connection.createStruct("device_state", new Object[] {"x", "ok"});
        });
        refused("malformed record literal: \"x\"", () -> {
            Object[][] rows = {{"x", "ok", 11.8, noon, null}};
            row.setArray(1, connection.createArrayOf("device_state", rows));
            row.execute();
        });
        refused("function batchdedup.upsert(character varying) does not exist", () -> {
            row.setString(1, "(x,ok,11.8,now,)");
            row.execute();
        });
        refused("column \"extra\" is of type jsonb but expression is of type character varying", () -> {
            try (PreparedStatement s = connection.prepareStatement(
                    "INSERT INTO device_state_buffered (device, extra) VALUES ('x', ?)")) {
                s.setString(1, "{}");
                s.executeUpdate();
            }
        });
        refused("there is no unique or exclusion constraint matching the ON CONFLICT specification", () -> {
            connection.createStatement().executeUpdate("INSERT INTO device_state_buffered VALUES ('x', 'ok')"
                    + " ON CONFLICT (device) DO UPDATE SET status = 'ok'");
        });
        // Not refused, but of no use: the counts of a batch of SELECTs
        try (PreparedStatement s = connection.prepareStatement(byName)) {
            for (int i = 0; i < 2; i++) {
                s.setString(1, "{\"device\": \"many-1\"}");
                s.addBatch();
            }
            for (int count : s.executeBatch())
                if (count != 0)
                    throw new IllegalStateException("executeBatch() counts " + count);
        }

        refused("null value in key column \"device\"", () -> {
            try (PreparedStatement s = connection.prepareStatement(byName)) {
                s.setString(1, "{\"device\": \"x\"}");
                s.addBatch();
                s.setString(1, "{\"device\": null}");
                s.addBatch();
                s.executeBatch();
            }
        });
    }

    public static void main(String[] arguments) throws SQLException, IOException {
        try (Connection connection = DriverManager.getConnection(arguments[0])) {
            examples(connection);
            whatDoesNotWork(connection);
        }
    }
}
