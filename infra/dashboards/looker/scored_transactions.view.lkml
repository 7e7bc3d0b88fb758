view: scored_transactions {
  sql_table_name: warehouse.v_fraud_features ;;

  dimension: key {
    primary_key: yes
    hidden: yes
    sql: ${TABLE}.tx_id || '/' || CAST(${TABLE}.seq AS VARCHAR) ;;
  }
  dimension: tx_id {
    type: string
    sql: ${TABLE}.tx_id ;;
  }
  dimension: network {
    type: string
    sql: ${TABLE}.network ;;
  }
  dimension: kind {
    type: string
    sql: ${TABLE}.kind ;;
  }
  dimension: status {
    type: string
    sql: ${TABLE}.status ;;
  }
  dimension: source_wallet_id {
    type: string
    sql: ${TABLE}.source_wallet_id ;;
  }
  dimension: target_wallet_id {
    type: string
    sql: ${TABLE}.target_wallet_id ;;
  }
  dimension: asset {
    type: string
    sql: ${TABLE}.asset ;;
  }
  dimension: amount {
    type: number
    sql: ${TABLE}.amount ;;
  }
  dimension: merchant_category {
    type: string
    sql: ${TABLE}.merchant_category ;;
  }
  dimension: country {
    type: string
    sql: ${TABLE}.country ;;
  }
  dimension: score {
    type: number
    value_format_name: decimal_3
    sql: ${TABLE}.score ;;
  }
  dimension: score_tier {
    type: tier
    tiers: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    style: interval
    sql: ${TABLE}.score ;;
  }
  dimension: model_version {
    type: string
    sql: ${TABLE}.model_version ;;
  }
  dimension: transaction_label {
    type: string
    sql: ${TABLE}.transaction_label ;;
  }
  dimension: is_void {
    type: yesno
    sql: ${TABLE}.is_void ;;
  }
  dimension_group: occurred {
    type: time
    timeframes: [raw, time, hour, date, week, month, quarter, year]
    sql: ${TABLE}.occurred_at ;;
  }
  measure: count {
    type: count
    drill_fields: [tx_id, source_wallet_id, target_wallet_id, amount, asset, score]
  }
  measure: average_score {
    type: average
    value_format_name: decimal_3
    sql: ${TABLE}.score ;;
  }
}
