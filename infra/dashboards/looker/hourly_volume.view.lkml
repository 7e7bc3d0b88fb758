view: hourly_volume {
  sql_table_name: warehouse.mv_hourly_volume ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    sql: CAST(${TABLE}.occurred_hour AS VARCHAR) || '/' || ${TABLE}.network || '/' || ${TABLE}.asset ;;
  }
  dimension_group: occurred {
    type: time
    timeframes: [raw, hour, date, week, month, quarter, year]
    sql: ${TABLE}.occurred_hour ;;
  }
  dimension: network {
    type: string
    sql: ${TABLE}.network ;;
  }
  dimension: asset {
    type: string
    sql: ${TABLE}.asset ;;
  }
  measure: transactions {
    type: sum
    sql: ${TABLE}.transactions ;;
  }
  measure: settled_transactions {
    type: sum
    sql: ${TABLE}.settled_transactions ;;
  }
  measure: unsettled_share {
    description: "Failed or declined."
    type: number
    value_format_name: percent_1
    sql: 1.0 - 1.0 * ${settled_transactions} / NULLIF(${transactions}, 0) ;;
  }
  measure: settled_amount {
    description: "Amounts of different assets are never added: without one asset chosen there is none."
    type: number
    value_format_name: decimal_2
    sql: CASE WHEN COUNT(DISTINCT ${asset}) = 1 THEN SUM(${TABLE}.settled_amount) END ;;
  }
  measure: largest_settled_amount {
    type: number
    value_format_name: decimal_2
    sql: CASE WHEN COUNT(DISTINCT ${asset}) = 1 THEN MAX(${TABLE}.largest_settled_amount) END ;;
  }
}
